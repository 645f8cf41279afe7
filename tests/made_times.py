"""Times that are easy to add up by hand."""

from dataclasses import dataclass

from analytic.planning.mix import Mix, PageShare


@dataclass
class Made:
    """A call of vision takes 1 ms a view, one of prefill 10 us a position, a step 1 ms and 1 us a position in the cache."""

    batch_size: int | None = None
    source: str = "floor"
    description: str = "made up"
    file: None = None

    def vision_s(self, page: PageShare) -> float:
        return 0.0 if page.page is None else 1e-3 * page.page.num_views

    def prefill_s(self, page: PageShare) -> float:
        return 1e-5 * page.seq_len

    def step_s(self, mix: Mix, pages: int) -> float:
        return 1e-3 + 1e-6 * mix.mean_context_len * pages
