#!/bin/sh
# Installs the Debian packages that Lectern is built from: those that are missing and no others.
#
#     deploy/install-deps.sh [--lint] [--fuzz] [--bench] [--clients]
#
# Silent and quick when nothing is missing: the Makefile calls it before every target. Otherwise it
# says what it is going to do before it does it. --lint, --fuzz and --bench add what those need,
# --clients the programs of others that some tests compare with or run against the nodes.
#
# libraft must be 0.22.1 or newer: 0.15.0, which Debian 12 has in main, can commit different entries
# at one place of the log. Debian 12 has 0.22.1 in backports, Debian 13 in main.
set -eu

RAFT_WANTED=0.22.1
BACKPORTS_FILE=/etc/apt/sources.list.d/lectern-backports.list

# sqlite3 is the stock shell that the tests read the nodes' files with; python3 runs the local
# cluster and the tests; the rest builds.
packages='gcc libc6-dev make pkg-config libsqlite3-dev libraft-dev libuv1-dev liblz4-dev
libxxhash-dev libedit-dev libinih-dev libyajl-dev libssl-dev node-llhttp libwslay-dev
libnanopb-dev libpcre2-dev zlib1g-dev tzdata sqlite3 python3'

say() {
    echo "install-deps: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

for option in "$@"; do
    case $option in
    --lint) packages="$packages clang clang-format" ;;
    --fuzz) packages="$packages clang libclang-rt-dev" ;;
    --bench) packages="$packages wrk" ;;
    --clients)
        packages="$packages python3-django"
        # Node may well be there from elsewhere, and newer.
        command -v node >/dev/null 2>&1 || packages="$packages nodejs"
        command -v npm >/dev/null 2>&1 || packages="$packages npm"
        ;;
    *) fail "unknown option $option (known: --lint, --fuzz, --bench, --clients)" ;;
    esac
done

# One line for each package that is installed: name, a space, version.
installed() {
    # shellcheck disable=SC2086 # a list of words
    dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' $packages 2>/dev/null |
        sed -n 's/^installed //p'
}

# Sets MISSING: names of packages to install. A libraft that is too old counts.
look() {
    have=$(installed)
    missing=
    for p in $packages; do
        case "
$have" in
        *"
$p "*) ;;
        *) missing="$missing $p" ;;
        esac
    done
    raft=$(printf '%s\n' "$have" | sed -n 's/^libraft-dev //p')
    if [ -n "$raft" ] && dpkg --compare-versions "$raft" lt "$RAFT_WANTED"; then
        missing="$missing libraft-dev"
    fi
}

# The value of a variable of /etc/os-release.
os() {
    sed -n "s/^$1=//p" /etc/os-release 2>/dev/null | tr -d "\"'"
}

# Runs a command as root. Standard input is not ours: `make run` reads SQL from it.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@" </dev/null
    elif command -v sudo >/dev/null 2>&1; then
        sudo DEBIAN_FRONTEND=noninteractive "$@" </dev/null
    else
        fail "this needs root, and sudo is not here: run deploy/install-deps.sh as root."
    fi
}

update() {
    say "apt-get update"
    as_root apt-get -qq update >&2 || fail "apt-get update failed: see above."
}

# The newest version of libraft-dev that some source offers, or nothing.
raft_offered() {
    best=
    for v in $(apt-cache madison libraft-dev 2>/dev/null | cut -d'|' -f2); do
        if [ -z "$best" ] || dpkg --compare-versions "$v" gt "$best"; then
            best=$v
        fi
    done
    if [ -n "$best" ] && dpkg --compare-versions "$best" ge "$RAFT_WANTED"; then
        printf '%s\n' "$best"
    fi
}

# Adds one sources file for backports, from the mirror that this machine uses already and with the
# keyring of that entry. Backports have priority 100 by themselves: no other package changes.
add_backports() {
    codename=$1
    # shellcheck disable=SC2016 # apt expands them
    fields='$(RELEASE) $(COMPONENT) $(REPO_URI) $(SOURCESENTRY)'
    found=$(apt-get indextargets --format "$fields" 'Created-By: Packages' |
        grep "^$codename main " | head -n 1)
    mirror=$(printf '%s\n' "$found" | cut -d' ' -f3)
    entry=$(printf '%s\n' "$found" | cut -d' ' -f4)
    [ -n "$mirror" ] || fail "no source of $codename main in this machine's apt configuration:" \
        "add $codename-backports by hand (it has libraft-dev >= $RAFT_WANTED)."
    # deb822 files say "Signed-By: FILE", the older ones "[signed-by=FILE]".
    keyring=$(sed -n -e 's/^Signed-By: *\(\/[^ ]*\).*/\1/p' -e 's/.*signed-by=\(\/[^] ]*\).*/\1/p' \
        "${entry%:*}" 2>/dev/null | head -n 1)
    line="deb ${keyring:+[signed-by=$keyring] }$mirror $codename-backports main"
    say "adding $BACKPORTS_FILE: $line"
    # shellcheck disable=SC2016 # the inner shell expands them
    as_root sh -c 'printf "# %s\n%s\n" "$1" "$2" >"$3"' \
        sh "For libraft-dev, which Lectern needs newer than in main." "$line" "$BACKPORTS_FILE"
}

# Systems without dpkg: what counts is whether the build finds the libraries.
if ! command -v dpkg-query >/dev/null 2>&1; then
    if command -v python3 >/dev/null 2>&1 &&
        pkg-config --exists sqlite3 libuv liblz4 libxxhash libedit inih libcrypto libpcre2-8 zlib \
            "raft >= $RAFT_WANTED" >/dev/null 2>&1; then
        exit 0
    fi
    fail "not a Debian system: install by hand a C compiler, make, pkg-config, python3, the" \
        "sqlite3 shell and the development files of SQLite (3.40 or newer), libraft" \
        "($RAFT_WANTED or newer, github.com/cowsql/raft), libuv, lz4, xxHash, libedit, inih," \
        "yajl, nanopb, PCRE2, zlib, wslay, the time zone database, and llhttp's C sources" \
        "(LLHTTP_SOURCES and LLHTTP_INCLUDE of the Makefile)."
fi

look
[ -n "$missing" ] || exit 0

export DEBIAN_FRONTEND=noninteractive
say "missing Debian packages:$missing"
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
    fail "installing them needs root, and sudo is not here: run deploy/install-deps.sh as root."
fi

update
case $missing in
*libraft-dev*)
    version=$(raft_offered)
    if [ -z "$version" ] && [ "$(os VERSION_CODENAME)" = bookworm ] && [ "$(os ID)" = debian ]; then
        say "libraft $RAFT_WANTED is in Debian 12's backports, not in its main"
        add_backports bookworm
        update
        version=$(raft_offered)
    fi
    [ -n "$version" ] || fail "no apt source of this system offers libraft-dev $RAFT_WANTED or" \
        "newer (Debian 13 and Debian 12's backports do; github.com/cowsql/raft): add one."
    # With the exact version named, this package and its library come from backports, no others.
    runtime=$(apt-cache show "libraft-dev=$version" |
        sed -n 's/^Depends:.*\(libraft[0-9][a-z0-9]*\) (=.*/\1/p' | head -n 1)
    missing=$(printf '%s' "$missing" | sed 's/ libraft-dev//g')
    missing="$missing libraft-dev=$version${runtime:+ $runtime=$version}"
    ;;
esac

say "apt-get install$missing"
# shellcheck disable=SC2086 # a list of words
as_root apt-get -qq -y --no-install-recommends install $missing >&2 ||
    fail "apt-get install failed: see above."
look
[ -z "$missing" ] || fail "still missing after the installation:$missing"
say "all packages are there"
