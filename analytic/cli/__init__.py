"""The commands of `python -m analytic`.

commands  cost, crops, sweep, demand
capacity  capacity
predict   predict
"""
