# The person, meanwhile: looks at the folder, works in a worktree, takes over what the agent did.
set -e
# As editors do: the lock of the index is the agent's. Two who refresh it disturb git anywhere.
export GIT_OPTIONAL_LOCKS=0
# For a moment a submodule that is being cloned has a path of the guest, and a new worktree no HEAD.
again() {
  for _ in $(seq 9); do
    ! "$@" >/dev/null 2>&1 || return 0
    sleep 0.3
  done
  "$@"
}
again git status --porcelain
again git -c diff.autoRefreshIndex=false diff
again git log --branches --oneline
again git submodule status
echo more >>tree/of-the-person
git -C tree add of-the-person
git -C tree commit --quiet --message 'by the person'
! git show-ref --quiet refs/heads/work || again git -C tree pull --quiet --no-rebase --no-edit . work
