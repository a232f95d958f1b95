#!/usr/bin/env bash
# A Slurm of one node with fake GPUs, for as long as standard input is open: whoever holds the other end may die as it
# likes, and no daemon outlives it. By hand: run it as root, wait for "ready", use sbatch in another terminal, Ctrl-D.
#
#   tests/slurm/box.sh FOLDER [GPUS [CPUS]]      FOLDER gets state, sockets and logs
#
# No systemd, cgroups or accounting; everything listens on 127.0.0.1 alone.
set -euo pipefail

folder=$(realpath "$1") gpus=${2:-2} cpus=${3:-2}
etc=/etc/slurm
mark="# Written by selftrain's tests/slurm/box.sh"
daemons=()

main() {
    refuse_another
    trap clean_up EXIT
    trap 'exit 1' INT TERM HUP
    mkdir -p "$folder"/{state,spool,gpus}
    chmod 755 "$folder" # jobs of other users pass through it to the daemons' sockets
    configure
    start_munge
    start slurmctld -D -c
    start slurmd -D -N localhost
    wait_for "the node to be idle" node_is_idle
    echo ready
    cat >/dev/null
}

# A Slurm that is somebody's is left alone, and so is another box that still runs.
refuse_another() {
    [ -e $etc/slurm.conf ] || return 0
    grep -qF "$mark" $etc/slurm.conf || fail "$etc/slurm.conf is not this script's: this machine has a Slurm of its own"
    ! scontrol ping | grep -q UP || fail "another box runs already"
}

# In /etc, since the plugin lets no SLURM_CONF through to the steps of a job.
configure() {
    for number in $(seq 0 $((gpus - 1))); do
        [ -e "$folder/gpus/$number" ] || mknod "$folder/gpus/$number" c 1 3 # a second /dev/null
    done
    cat >$etc/gres.conf <<CONF
$mark
NodeName=localhost Name=gpu File=$folder/gpus/[0-$((gpus - 1))]
CONF
    cat >$etc/slurm.conf <<CONF
$mark
ClusterName=box
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$folder/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
MinJobAge=3600
# A job at its time limit gets SIGTERM, and SIGKILL so many seconds later.
KillWait=2
GresTypes=gpu
# The node says it has more than the machine, so that the same jobs fit on any.
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=1000000 Gres=gpu:$gpus State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

# With a key and a socket of its own, so that a munged of the machine is not touched.
start_munge() {
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
    start munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munge.pid" --seed-file="$folder/munge.seed" --log-file="$folder/munge.log"
    wait_for "munge" munge --socket="$folder/munge.socket" --no-input
}

start() {
    setpriv --pdeathsig TERM "$@" </dev/null >"$folder/$1.out" 2>&1 &
    daemons+=($!)
}

node_is_idle() { [ "$(sinfo --noheader --format=%T)" = idle ]; }

wait_for() {
    local what=$1
    for _ in $(seq 100); do
        "${@:2}" >/dev/null 2>&1 && return
        sleep 0.2
    done
    fail "waited in vain for $what; see $folder/*.out"
}

nothing_runs() { [ -z "$(squeue --noheader)" ]; }

# Jobs first: they would go on without the daemons.
clean_up() {
    trap '' INT TERM HUP
    if [ ${#daemons[@]} = 3 ]; then
        squeue --noheader --format=%i | xargs --no-run-if-empty scancel || true
        (wait_for "the last jobs to end" nothing_runs) || true
    fi
    for ((number = ${#daemons[@]} - 1; number >= 0; number--)); do
        kill "${daemons[number]}" 2>/dev/null || true
        wait "${daemons[number]}" || true
    done
    rm -f $etc/slurm.conf $etc/gres.conf
}

fail() {
    echo "box.sh: $*" >&2
    exit 1
}

main
