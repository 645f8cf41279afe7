"""The models: one package each, with its dimensions, layers, stages, tokens and crop rule."""
