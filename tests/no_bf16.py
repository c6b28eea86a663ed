"""A pytest plugin, `-p tests.no_bf16`: torch finds no arithmetic for bf16 here.

A processor that torch and oneDNN are told to take for an older one still says what it can multiply.
Then each believes another, and bf16 ends in torch's "pack_vnni2 is only supported when avx512 is
supported", or in a block that oneDNN does not have. On the older one itself, all say no.
"""

import torch

torch.cpu._is_avx512_bf16_supported = torch.cpu._is_amx_tile_supported = lambda: False
