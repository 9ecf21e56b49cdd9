"""The protocol between coordinator and sites: messages, what either side does with them, and the state they keep.

Knows neither nnU-Net nor an engine: parameters are dictionaries name -> tensor.
"""
