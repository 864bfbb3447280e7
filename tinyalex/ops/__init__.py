"""Floor 3: the ops. One family per file; forward, derivation and backward side by side.

Glossary, for every file here:

=========== =====================================================================
``x w b``   input, weight, bias            ``gy gx gw gb``  dL/dy, dL/dx, dL/dw, dL/db
``N``       images in the batch            ``C``            channels in
``H W``     height and width in            ``OH OW``        height and width out
``K``       channels (filters) out         ``KH KW``        height and width of a filter or window
``S``       stride                         ``P``            padding
``G``       groups                         ``xp``           numpy or cupy
=========== =====================================================================

Shapes are (N, C, H, W) throughout; L is the scalar at the top of the graph. Every op takes arrays
of any strides and gives the same bits for all of them.
"""
from . import arithmetic, exchange, linear, numpy_guard, shape  # noqa: F401  (attach operators)
