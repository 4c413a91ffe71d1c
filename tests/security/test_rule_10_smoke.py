from __future__ import annotations
import json
from world import World, program, WRITE
CODE = """
import subprocess, os, sys
def sh(c):
    d = subprocess.run(c, shell=True, capture_output=True, text=True)
    print(c, d.returncode, d.stdout[-600:], d.stderr[-600:], flush=True)
    return d.returncode
sh('pwd; ls -la; git status; git log --oneline --all; git diff origin/main --stat; id; env')
open('a.txt','w').write('a')
sh('git add a.txt && git commit -qm mine')
sh('git log --oneline; git status --porcelain; git branch -a; git worktree list; git stash list')
open('b.txt','w').write('b')
sh('ls -la /; ls -R /tmp | head -50')
"""
def test_smoke(a_world):
    w: World = a_world(sandbox={"mode": "bubblewrap"}, **{"providers__claude-cli": program(CODE)})
    n = w.issue("x")
    w.start()
    try:
        w.until(lambda: (t := w.task(n)) and t.state in ("succeeded","failed","blocked"), "ended")
    finally:
        for f in (w.state_dir/"runs").glob("*/*.log"):
            print(f, f.read_text()[-7000:])
    print(w.result(n), [r.detail for r in w.runs(n)])
    import subprocess
    print(subprocess.run(["git","log","--stat","--oneline",f"auto/gh-{n}"],cwd=w.folder/"github/octo/hello.git",capture_output=True,text=True).stdout)
    assert 0
