"""The parts of reading a torch.export archive from a stranger; `cluinfer.export.program` is the way in.

Nothing of the file reaches torch as it came: each part takes what it knows, in a form written anew, and refuses the
rest. torch loads only an archive that was put together from those parts, which holds no pickle and no code.
"""
