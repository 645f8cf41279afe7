"""The commands of `python -m analytic`.

arguments       arguments that several commands take
pages           pages of the images and PDF files on a command line
planned_device  the device of a plan: datasheet, memory, measured rates
plan_inputs     model, device, memory, pages and times of a plan
cost            cost
crops           crops
sweep           sweep and demand
predict         predict
capacity        capacity
devices         devices
compare         compare
"""
