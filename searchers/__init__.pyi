from .policies.cell_search import Recommendation as Recommendation
from .policies.cells import Cell as Cell
from .tune.power_law_scheduler import PowerLawScheduler as PowerLawScheduler
from .tune.quadratic_search import QuadraticSearch as QuadraticSearch
from .tune.segment_search import SegmentSearch as SegmentSearch
from .tune.surface_search import SurfaceSearch as SurfaceSearch
