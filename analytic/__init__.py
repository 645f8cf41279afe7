"""The closed-form cost model of DeepSeek-OCR: FLOPs, bytes, memory and KV cache from shapes alone, and times from rates.

Pure arithmetic: nothing here imports torch, and every formula takes an int or a numpy array alike.

counted    shape_class -> op -> shape -> ops -> cost, layer: an operator, its dimensions, its formula, how parts combine
asked      spec, workload, execution, checks, mapping: the model, the page, the kernels
layers     attention, sam_attention, sam, vision, decoder, moe, language_model -> model (kvcache), the root with its stages
limits     hardware (datasheets) -> roofline: floor, MFU, MBU
times      rates (of operators alone) -> predict; times, recorded_times: one source of times for plans
plans      capacity (memory), mix -> throughput -> plan; demand; sweep
told       stored (JSON by schema), table, charts; plan_text, plan_chart
commands   __main__ -> commands, capacity_command, predict_command
"""
