"""Fewer bits for a number: integers and FP8, their scales, and what runs on them.

integers.py  scale, zero point, granularity      fp8.py       E4M3 and E5M2, tiles and blocks
packing.py   2 to 8 bits side by side            matmul.py    how tensor cores add up, and promotion
linear.py    layers with few-bit weights         cache.py     a cache with few-bit entries
model.py     a whole model quantised             fp8_training.py  linear layers that train as V3's do
formats.py   one matrix in any format, its bytes and its error
one_number.py  one FP8 number: its bits, its neighbours, its rounding
"""
