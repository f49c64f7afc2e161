"""Fused kernels behind `lorentz` and `relsim`: one folder per operation, tensors in and tensors out."""
