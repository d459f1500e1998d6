# Lists git repositories in the home folder that have what is nowhere else, a line each:
# `repository_N changes|commits|both|unread PATH`; then `repositories whole`, unless there are more than 20
# of them, or they take longer than three seconds: then up to six in all, as one may be in the middle.
export GIT_OPTIONAL_LOCKS=0
ask() { timeout 1 git -C "$repository" "$@" 2>/dev/null; }
lost() {
    changes=$(ask status --porcelain && echo read) || { echo unread; return; }
    stash=$(ask rev-parse -q --verify refs/stash)
    # what a clone --depth ends at was fetched; so was what a tag names, unless a branch has it
    shallow=$(cat "$repository/.git/shallow" 2>/dev/null)
    head=$(ask symbolic-ref -q HEAD || ask rev-parse -q --verify HEAD)
    case $head in refs/*) head= ;; esac
    commits=$(ask rev-list -n 1 $stash --branches --not --remotes $shallow && echo read) &&
        commits=$([ -z "$head" ] || ask rev-list -n 1 "$head" --not --branches --remotes --tags $shallow)$commits ||
        { echo unread; return; }
    case ${changes%read}:${commits%read} in
        :) ;;
        :*) echo commits ;;
        *:) echo changes ;;
        *) echo both ;;
    esac
}
start=$(date +%s) number=0
{
    timeout 2 find ~ -xdev \( -name node_modules -o -name .cache -o -name .npm -o -name .cargo \) -prune -o \
        -name .git -prune -print 2>/dev/null
    [ $? -ge 124 ] || echo whole
} | while IFS= read -r path; do
    [ "$path" != whole ] || { echo repositories whole; break; }
    [ "$number" -lt 20 ] && [ $(($(date +%s) - start)) -lt 3 ] || break
    repository=${path%/.git}
    what=$(lost)
    [ -z "$what" ] || { echo "repository_$number $what $repository"; number=$((number + 1)); }
done
