"""What fits, how many pages per second, at what price.

mix             pages by share
capacity        memory: the largest batch, and pages in flight
recorded_times  times that `pytest benchmarks` measured
times           one source of times for plans: floor, predicted or recorded
throughput      pages/s and tokens/s of a mix
plan            a capacity plan; plan_text and plan_chart show it
demand          FLOP/s and bytes/s that answering in time takes
sweep           costs over lengths and views, vectorised
"""
