# shellcheck shell=bash
# Sourced by the slurm_*.sbatch scripts: how a job is submitted, and how it runs its program and comes back for more.

source launch/environment.sh
shopt -s inherit_errexit # a failing sbatch inside "$(submit ...)" ends the script

# Where things are, relative to the project's root. Any of these can be given in the environment.
export DATA_DIR=${DATA_DIR:-data} RUNS_DIR=${RUNS_DIR:-runs}
export FIGURES_DIR=${FIGURES_DIR:-figures} LOGS_DIR=${LOGS_DIR:-logs}
readonly KILLED_RESTARTS=${KILLED_RESTARTS:-10}

slurm_parameters() { # for --help
  cat <<'HELP'
  SBATCH_OPTIONS=""     options of sbatch, for instance "--partition=gpu --account=mine --time=08:00:00"
  KILLED_RESTARTS=10    a job whose program was killed goes back to the queue if it was restarted less often than this
  DATA_DIR=data  RUNS_DIR=runs  FIGURES_DIR=figures  LOGS_DIR=logs   relative to the project's root
HELP
  default_extras="cuda; EXTRAS= (empty) without GPUs" environment_parameters
}

# Runs one of the script's functions: help, the job itself, or, where no job is under way, its submission.
run_usage_job_or_submission() { # run_usage_job_or_submission <arguments of the script>
  if [[ ${1:-} == --help ]]; then
    usage
  elif [[ ${ENVIRONMENT:-} == BATCH ]]; then
    INSTALL=no enter_environment "$PWD" # compute nodes often have no network
    job "$@"
  else
    EXTRAS=${EXTRAS-cuda} enter_environment "$PWD"
    submission "$@"
  fi
}

submit() { # submit <log file> <arguments of sbatch>: prints the number of the job
  local log=$1 options job
  read -ra options <<<"${SBATCH_OPTIONS:-}"
  mkdir -p "$LOGS_DIR" # Slurm does not make it: the job would end at once, without a trace
  job=$(sbatch --parsable --output="$LOGS_DIR/$log" "${options[@]}" "${@:2}")
  echo "${job%%;*}" # a federation answers "number;cluster"
}

# Runs a program as a job step, so that Slurm's signals reach its processes. After USR1 (the time limit is near) or TERM
# (preempted) our programs save their state and exit with 85; the job goes back to the queue and continues when it is
# its turn again. That needs no setting of the cluster's but JobRequeue or --requeue.
run_step() { # run_step <program> [arguments]
  local status=0
  export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # since Slurm 22.05 srun does not take it from the job
  report "on $SLURM_JOB_NODELIST, restart ${SLURM_RESTART_COUNT:-0}: $*"
  srun --kill-on-bad-exit=1 "$@" || status=$?
  if ((status == 85)); then
    requeue "is to be continued"
  elif ((status > 128 && ${SLURM_RESTART_COUNT:-0} < KILLED_RESTARTS)); then
    requeue "was killed by signal $((status - 128))"
  elif ((status > 0)); then
    report "failed with status $status"
  fi
  return "$status"
}

requeue() { # requeue <reason>
  local state
  state=$(job_state)
  report "$1; it is $state"
  # A job that its owner cancelled stays so, and one that Slurm preempted is in the queue already.
  if [[ $state == RUNNING || $state == UNKNOWN ]]; then
    scontrol requeue "$(job_name)" || report "cannot be requeued (see above): submit the same command again"
  fi
}

job_state() { # asks a busy controller again
  local seconds
  for seconds in 5 20 0; do
    if squeue --noheader --job="$(job_name)" --format=%T; then return; fi
    sleep "$seconds"
  done
  echo UNKNOWN
}

report() {
  echo "$(date '+%F %T') job $(job_name) $1"
}

# A task of an array is number_task, not SLURM_JOB_ID: the last task has the number of the whole array there, and to
# requeue that number is to requeue every task.
job_name() {
  if [[ -n ${SLURM_ARRAY_JOB_ID:-} ]]; then
    echo "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  else
    echo "$SLURM_JOB_ID"
  fi
}
