"""Times from shapes: the roofline lower bound, and the prediction from rates of operators.

hardware  datasheet peaks of known devices
roofline  lower bound on stage time, MFU, MBU
rates     what a device reaches with operators alone, class by class
predict   predicted time of a stage: every operator at the rate of its class
"""
