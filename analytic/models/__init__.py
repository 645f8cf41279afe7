"""The models whose cost is known in closed form, one package each; everything else finds them through the registry.

spec         the dimensions that every model has
page_vision  the vision stack of a model as its root sees it
family       ModelFamily, ModelPart, ConfigKind and EngineFiles: what a model says about itself
registry     preset, config or spec -> its family; a package with a module `family` registers itself by being here
"""
