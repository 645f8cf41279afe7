"""Capacity planning: pages that fit, pages per second, and price.

mix             page shapes and their shares
capacity        memory: the largest batch, and pages in flight
recorded_times  times that `pytest benchmarks` measured
times           one source of times for plans: floor, predicted or recorded
throughput      pages/s and tokens/s of a mix
plan            a capacity plan; plan_text and plan_chart render it
demand          FLOP/s and bytes/s required to answer within a target time
sweep           costs over lengths and views, vectorised
"""
