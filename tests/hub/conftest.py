from ..hub_fixtures import hub

__all__ = ["hub"]
