"""Times from shapes: the roofline lower bound, and the prediction from operator rates.

hardware  datasheet peaks of known devices
roofline  lower bound on stage time, MFU, MBU
rates     measured rates of single operators on a device, per class
predict   predicted time of a stage: every operator at the rate of its class
"""
