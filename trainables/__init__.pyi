from .models.spec import HFSpec as HFSpec
from .models.spec import ModelSpec as ModelSpec
from .models.spec import TrainSpec as TrainSpec
from .training.loop import pretrain as pretrain
from .training.loop import train as train
