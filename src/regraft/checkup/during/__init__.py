"""The short form of a checkup, beside a run that has the pixels and the features anyway."""
