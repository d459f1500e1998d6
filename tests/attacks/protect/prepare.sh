# The person's work, below the current folder: `app` is shared with a guest, the rest is not.
set -e
git config --global user.name Person
git config --global user.email person@example.test
git config --global init.defaultBranch main
git init --quiet library
git -C library commit --quiet --allow-empty -m one
echo two >library/file
git -C library add file
git -C library commit --quiet -m two
git clone --quiet --bare library library.git 2>&1
git init --quiet app
cd app
mkdir .vscode src
echo '{"editor.tabSize": 2}' >.vscode/settings.json
echo 'repos: []' >.pre-commit-config.yaml
echo '/scratch' >.gitignore
printf 'one\ntwo\nthree\n' >src/file
printf 'one\n' >src/data.bin
git add .
git commit --quiet -m one
git -c protocol.file.allow=always submodule --quiet add ../library.git sub
git -c protocol.file.allow=always submodule --quiet add ../library.git late
git commit --quiet -m submodules
git submodule --quiet deinit late
rm -rf .git/modules/late
git checkout --quiet -b names
echo '{"editor.tabSize": 4}' >.vscode/settings.json
printf 'repos: []\nfail_fast: true\n' >.pre-commit-config.yaml
git commit --quiet -a -m names
git checkout --quiet main
echo four >>src/file
echo two >>src/data.bin
git commit --quiet -a -m two
git tag v1
git clone --quiet --bare . ../origin.git 2>&1
git remote add origin ../origin.git
git remote add backup ssh://nobody@127.0.0.1/backup.git
git remote add daemon git://127.0.0.1:9/daemon.git
git fetch --quiet origin
git branch --quiet --set-upstream-to=origin/main
git config alias.lg 'log --oneline'
sed -i '1i # kept by hand: a comment' .git/config
git worktree add --quiet -b side tree
git init --quiet nested
git -C nested commit --quiet --allow-empty -m nested
for name in victim rebasing merging; do
  git init --quiet $name
  git -C $name commit --quiet --allow-empty -m one
done
printf '#!/bin/sh\n' >merging/.git/hooks/post-commit
chmod +x merging/.git/hooks/post-commit
git clone --quiet --bare nested bare.git 2>&1
printf '#!/bin/sh\ncanary a-disabled-hook-made-executable\n' >.git/hooks/post-commit
printf '#!/bin/sh\n' >.git/hooks/post-merge
chmod +x .git/hooks/post-merge
for hook in pre-commit post-update; do
  [ -e .git/hooks/$hook.sample ] || printf '#!/bin/sh\n' >.git/hooks/$hook.sample
done
mkdir .idea .husky
echo '<project version="4"/>' >.idea/workspace.xml
echo 'true' >.husky/pre-commit
echo '# nothing yet' >fabfile.py
echo '{}' >.mcp.json
echo 'lefthook: true' >lefthook.yml
echo five >>src/file
