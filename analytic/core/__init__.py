"""The cost of an operator, and how costs add up.

polynomial   counts as polynomials in the dimensions of a call
shape_class  the operator classes that have their own measured rate
op           one operator: its counts, its class and its dimensions
shape        the dimensions of products, convolutions and broadcasts
execution    how the model runs: device, kernels, precision, framework
ops          one short formula per operator
attention    softmax(Q K^T) V for each kernel, and rotary positions
cost         the counts of a call, and how modules combine
layer        the interface of every layer, and the leaves that layers are built from
kvcache      a KV cache that has a length and no values
checks       validation of values, with one form of error message
"""
