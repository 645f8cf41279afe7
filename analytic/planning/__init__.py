"""Capacity planning: pages that fit, pages per second, and price.

mix             page shapes and their shares
page_counts     pages of files counted by size and by views, and the file of a mix
capacity        memory: the largest batch, and pages in flight
recorded_times  times that `pytest benchmarks` measured
times           one source of times for plans: floor, predicted or recorded
throughput      pages/s and tokens/s of a mix
limits          the most pages/s within limits on the times of tokens
loops           what pages that never stop generating take
plan_request    price, limits, devices and pages/s that a plan is asked for
plan            a capacity plan; plan_text and plan_chart render it
side_by_side    devices side by side; side_text and side_chart render it
variants        variants of the model side by side; variants_text and variants_chart render it
demand          FLOP/s and bytes/s required to answer within a target time
sweep           costs over lengths and views, vectorised
"""
