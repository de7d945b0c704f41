from . import analysis as analysis
from . import searchers as searchers
from . import trainables as trainables
from .comparison import ComparisonResult as ComparisonResult
from .comparison import compare as compare
from .finished import load_runs as load_runs
from .module_study import ModulesResult as ModulesResult
from .module_study import ModuleStudy as ModuleStudy
from .spec import StudySpec as StudySpec
from .spec import load_spec as load_spec
from .study import FittingStudy as FittingStudy
from .study import StudyResult as StudyResult
from .transfer_study import TransferResult as TransferResult
from .transfer_study import TransferStudy as TransferStudy

__version__: str
