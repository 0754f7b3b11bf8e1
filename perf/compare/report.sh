# shellcheck shell=bash
# The report of the comparison. Sourced by run.sh.

version() { "$@" 2>&1 | grep -Eo '[0-9]+\.[0-9]+[0-9.]*[^ ,]*' | head -n 1; }
# Root runs this; git has doubts about repositories of others.
in_git() { git -c "safe.directory=$root" -C "$root" "$@" 2>/dev/null; }
revision() { echo "$(in_git describe --always || echo unknown)$([ -z "$(in_git status --porcelain)" ] || echo " with changes")"; }

# What README.md shows: the setting in one paragraph, and the table.
block() { # block ROUNDS LOAD
  local processor cpus
  processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
  cpus=$(nproc)
  cat <<END_OF_BLOCK
$(date +%Y-%m-%d), revision $(revision): $cpus CPUs ($processor), Linux $(uname -r), HAProxy $(version haproxy -v),
nginx $(version nginx -v), nftables $(version nft --version), DPDK $(version pkg-config --modversion libdpdk). Medians of $1 rounds, the lowest and the highest in brackets.
Load average at the start: $2.

$("$load" table "$work/results" --rates "${rates[@]}")
END_OF_BLOCK
}

# between FILE TEXT: replaces what is between the markers of the file.
between() {
  local begin='<!-- compare: begin' end='<!-- compare: end -->'
  TEXT=$2 awk -v begin="$begin" -v end="$end" '
    index($0, end) == 1 { inside = 0 }
    !inside { print }
    index($0, begin) == 1 { inside = 1; print ENVIRON["TEXT"] }
  ' "$1" >"$work/new"
  cat "$work/new" >"$1"
}

report() { # report ROUNDS LOAD
  local text file
  text=$(block "$@")
  printf '%s\n' "$text"
  if [ "$write" != yes ]; then return; fi
  file=$root/perf/runs/$(date +%Y-%m-%d)-compare.md
  cat >"$file" <<END_OF_FILE
# $(date +%Y-%m-%d), weir beside others

Made by \`make compare\`; \`perf/README.md\` says what the columns are and what they do not say.

<!-- compare: begin -->
$text
<!-- compare: end -->

Load average at the end: $(cut -d ' ' -f 1-3 /proc/loadavg); the comparison's own work is part of it.
END_OF_FILE
  chown --reference="$root/README.md" "$file"
  between "$root/README.md" "$text"
  echo "written: ${file#"$root"/} and README.md" >&2
}
