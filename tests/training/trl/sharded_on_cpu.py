"""layerpick's command with FSDP2 on CPU processes; accelerate itself shards on GPUs only."""

import os

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from layerpick.selector.app.entry import main
from layerpick.training.trl.watch import Watch

begin, begin_training = AcceleratorState.__init__, Watch.on_train_begin


def begin_sharded(self, *arguments, fsdp_plugin=None, **others):
    begin(self, *arguments, fsdp_plugin=fsdp_plugin, **others)
    if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


def all_sharded(self, *arguments, **others):
    network = self._trainer.model
    assert all(isinstance(parameter, DTensor) for parameter in network.parameters())
    return begin_training(self, *arguments, **others)


if __name__ == "__main__":
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    AcceleratorState.__init__ = begin_sharded
    Watch.on_train_begin = all_sharded
    main()
