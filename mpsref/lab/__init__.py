"""Kernels of our own as shader text, and kernels of others run on this machine."""
