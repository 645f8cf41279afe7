"""What an operator costs, and how costs add up.

shape_class  the classes of operators that have a rate of their own
op           one operator: what is counted of it, its class and its dimensions
shape        the dimensions of products, convolutions and broadcasts
execution    how a model is run: device, kernels, precision, framework
ops          one short formula per operator
attention    softmax(Q K^T) V for each way it can run, and rotary positions
cost         what is counted of a call, and how modules combine
layer        what every layer answers, and the leaves that layers are built from
kvcache      a KV cache that has a length and no values
checks       what is accepted, said in one form
"""
