# The agent's day, in the guest: what it does with git, in a folder where the person works as well.
set -e
cd "$PROJECT"
# Another's lock is waited for, and an index that the other side has just refreshed is read again.
git() {
  for _ in $(seq 40); do
    command git "$@" 2>"$SCRATCH/error" && return
    grep -q '\.lock\|cannot lock\|would be overwritten' "$SCRATCH/error" || break
    sleep 0.05
  done
  echo "git $*" >&2
  cat "$SCRATCH/error" >&2
  return 1
}
commit() {
  echo "$1" >>"agent-$1"
  git add "agent-$1"
  git commit --quiet --message "$1"
}
git clone --quiet --bare sub "$SCRATCH/library.git"
git init --quiet --bare "$SCRATCH/remote.git"

# Branches, and a remote of its own.
git checkout --quiet -b work
git commit --quiet --all --message 'what the person had begun'
for name in one two three; do commit $name; done
git remote add agent "$SCRATCH/remote.git"
git push --quiet -u agent work
git fetch --quiet agent
git branch --quiet topic work~1
git branch --quiet --set-upstream-to=agent/work topic
git branch --quiet --move topic renamed
git branch --quiet --delete --force renamed
git remote add old "$SCRATCH/remote.git"
git fetch --quiet old
git remote rename old older
git remote remove older
git remote set-url agent "file://$SCRATCH/remote.git"

# Branches that differ in names that are closed, but tracked.
git checkout --quiet names
grep -q fail_fast .pre-commit-config.yaml
git checkout --quiet work
git merge --quiet --no-edit names
grep -q 4 .vscode/settings.json
git checkout --quiet -b picked main
git cherry-pick names >/dev/null
git stash list
echo more >>src/file
echo '{}' >.vscode/settings.json
git stash --quiet
git checkout --quiet work
git checkout --quiet -b based main
commit based
GIT_SEQUENCE_EDITOR=true GIT_EDITOR=true git rebase --quiet -i work
echo x >>agent-based
git commit --quiet --all --fixup HEAD
GIT_SEQUENCE_EDITOR=true git rebase --quiet -i --autosquash HEAD~2
git checkout --quiet picked
git stash pop --quiet
git commit --quiet --all --message 'from the stash'
git checkout --quiet work
git merge --quiet --no-edit --no-ff based
git tag --annotate --message seen seen
git push --quiet --tags agent work

# Submodules, a worktree, a new repository.
git config submodule.late.url "$SCRATCH/library.git"
git submodule --quiet update --init late
git submodule --quiet update --init sub
git submodule --quiet add "$SCRATCH/library.git" added
git commit --quiet --message 'a submodule'
git worktree add --quiet -b aside agent-tree
echo aside >agent-tree/aside
git -C agent-tree add aside
git -C agent-tree commit --quiet --message aside
git init --quiet made
echo made >made/file
git -C made add file
git -C made commit --quiet --message made
git -C made remote add origin "$SCRATCH/library.git"
git -C made fetch --quiet
git gc --quiet
git status --porcelain >/dev/null
git for-each-ref
