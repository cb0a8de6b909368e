"""The length of the warm-up."""

from fastreid.config import CfgNode

from mgre.errors import ConfigError


def scale_warmup(cfg: CfgNode, iters_per_epoch: int) -> CfgNode:
    """A copy of the config in which SOLVER.WARMUP_ITERS is computed from SOLVER.WARMUP_EPOCHS, if that is above 0.

    Raises:
        ConfigError: no epoch is left after the warm-up.
    """
    cfg = cfg.clone()
    cfg.defrost()
    solver = cfg.SOLVER
    if solver.WARMUP_EPOCHS > 0:
        solver.WARMUP_ITERS = int(solver.WARMUP_EPOCHS * iters_per_epoch)
    cfg.freeze()
    most = (solver.MAX_EPOCH - 1) * iters_per_epoch
    if iters_per_epoch and most < solver.WARMUP_ITERS:
        raise ConfigError(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS}; allowed: at most {most}, all but one of "
            f"SOLVER.MAX_EPOCH {solver.MAX_EPOCH} epochs of {iters_per_epoch} steps; or use SOLVER.WARMUP_EPOCHS"
        )
    return cfg
