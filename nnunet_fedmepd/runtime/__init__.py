"""Runs federations: joins nnU-Net, the protocol and the machine."""
