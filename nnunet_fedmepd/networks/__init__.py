"""The network: modality-specific encoders, region-aware fusion decoder, anchor calibration, auxiliary decoder."""
