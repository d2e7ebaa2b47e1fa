"""Beyond one machine: the pictures of a Ray data set, or millions of files, predicted by Ray's actors.

Scheduling, queues, retries and flow control are Ray's; a runtime in each actor is ours. Needs the extra `ray`.
"""

from cluinfer.scale.columns import Columns, Packed, packed
from cluinfer.scale.dataset import predict_dataset
from cluinfer.scale.files import Summary, predict_files

__all__ = ["Columns", "Packed", "Summary", "packed", "predict_dataset", "predict_files"]
