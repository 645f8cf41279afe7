"""The models whose cost is known in closed form, one package each; everything else finds them through the registry.

family    ModelFamily, ModelPart and EngineFiles: what a model says about itself
registry  preset, config or spec -> its family; a package with a module `family` registers itself by being here
"""
