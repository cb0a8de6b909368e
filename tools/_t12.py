import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("b", "tools/benchmark_evaluation.py"); m = importlib.util.module_from_spec(spec); sys.modules["b"]=m; spec.loader.exec_module(m)
import tempfile
if __name__=="__main__":
    with tempfile.TemporaryDirectory() as f:
        c=m.compile_metrics(f)
        for _ in range(3):
            for side in ("ours","toolbox"): print(side, m._in_a_process(m.measure,"metrics",side,(3368,15913),2048,c), flush=True)
