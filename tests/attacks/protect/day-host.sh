# The person, meanwhile: looks at the folder, works in a worktree, takes over what the agent did.
set -e
# As editors do: the lock of the index is the agent's. Two who refresh it disturb git anywhere.
export GIT_OPTIONAL_LOCKS=0
git status --porcelain >/dev/null
git -c diff.autoRefreshIndex=false diff >/dev/null
git log --branches --oneline >/dev/null
git submodule status >/dev/null || true # one may be half made just now
echo more >>tree/of-the-person
git -C tree add of-the-person
git -C tree commit --quiet --message 'by the person'
! git show-ref --quiet refs/heads/work || git -C tree pull --quiet --no-rebase --no-edit . work
