"""What nnU-Net runs: trainer, planner, preprocessor, fingerprint extractor and their registration.

Importing it registers nothing; see `registration`.
"""
