# Undoes what a run of the harness made. Reads one thing a line until the owner closes the pipe, which the kernel
# also does when the owner is killed, then removes all of it, the latest first.
#
#   directory PATH            process PID START_TIME
#   namespace NAME            link NAME
#
# Only things that carry the harness' own prefix are removed, and a process only if it is still the one that was
# registered (a pid may have been given to another since).

# Field 22 of /proc/PID/stat; the name in field 2 may hold spaces, so count from its closing parenthesis.
start_time() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
# A zombie is dead; only its parent can reap it.
state() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f1; }

gone() {
    case "$(state "$1")" in '' | Z | X) return 0 ;; esac
    return 1
}

end_process() {
    [ "$(start_time "$1")" = "$2" ] || return 0
    kill -KILL "$1" 2>/dev/null
    until gone "$1"; do sleep 0.02; done
}

# Engines run in their agent's namespace; one whose agent was just killed may need a moment to notice.
empty_namespace() {
    for pid in $(ip netns pids "$1" 2>/dev/null); do
        kill -KILL "$pid" 2>/dev/null
        until gone "$pid"; do sleep 0.02; done
    done
}

undo() {
    case "$1 $2" in
        "process "*) end_process "$2" "$3" ;;
        "namespace sparkherd-"*)
            empty_namespace "$2"
            ip netns delete "$2"
            ;;
        "link sparkherd-"*) ip link delete "$2" ;;
        "directory "*/sparkherd-*) rm -rf -- "$2" ;;
    esac
}

things=
while IFS= read -r thing; do
    things="$thing
$things"
done
printf '%s' "$things" | while IFS=' ' read -r kind name detail; do
    undo "$kind" "$name" "$detail"
done
