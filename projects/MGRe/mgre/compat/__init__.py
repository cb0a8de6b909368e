"""The toolbox, fast-reid, on current software: Python 3.10 to 3.13, torch 2, numpy 2, faiss 1.8 and later, CUDA or not.

It works with the wheel fastreid 1.4.0 and with a git clone on PYTHONPATH, and edits the files of neither. Each
adaptation is one function that says why it is needed, does nothing where the toolbox in use does not need it, and may
be called again. Each file is for one area of the toolbox.
"""

from mgre.compat import imports


def apply() -> None:
    """Adapt the toolbox; to be called before anything imports it.

    Raises:
        SetupError: the toolbox is not installed.
    """
    imports.require_packages()
    imports.import_toolbox()
    # These import the toolbox, which can be imported only now.
    from mgre.compat import checkpoint, engine, evaluation, flat_parameters, layers, loading, modeling, reading, solver

    for area in (loading, reading, flat_parameters, solver, engine, checkpoint, evaluation, layers, modeling):
        for adaptation in area.ADAPTATIONS:
            adaptation()
