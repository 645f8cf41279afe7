"""The models: a folder each, which owns its dimensions, layers, stages, tokens and crop rule."""
