"""Floor 2: the kernels, CUDA sources to be read as lessons, and what compiles and launches them.

``im2col.cu``   patches as columns, and back          ``dropout.cu``  masks from a counter
``bias.cu``     bias, ReLU, and the order of maps     ``loss.cu``     softmax and cross-entropy
``pool.cu``     overlapping maxima, and who won       ``sgd.cu``      one parameter's update
``lrn.cu``      response normalization, fused         ``input.cu``    bytes to what the net sees
``scatter.cu``  sums where others use atomics         ``loader.py``   compiles, launches

Read ``sgd.cu`` first: it is the smallest, and explains what a kernel is. Each kernel does the work
of lines that stand in ``ops/`` for both array modules; those are the reference it must agree with.
No kernel adds with atomics, so each gives the same bits every time.
"""
from .loader import launch, off, on

__all__ = ["launch", "off", "on"]
