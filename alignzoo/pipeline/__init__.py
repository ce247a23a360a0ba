"""Runs made one after the other, each from what others left: kept where nothing has changed, resumed where unfinished."""

from alignzoo.pipeline.carry_out import run
from alignzoo.pipeline.check import check
from alignzoo.pipeline.plan import Stage, folder_of, stages
from alignzoo.pipeline.record import show

__all__ = ["Stage", "check", "folder_of", "run", "show", "stages"]
