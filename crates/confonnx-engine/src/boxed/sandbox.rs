//! What a box gives up before it sees a model, and before it sees requests.

use std::{collections::BTreeMap, io};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit,
};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition, SeccompFilter,
    SeccompRule as Rule, TargetArch, apply_filter_all_threads,
};

/// What could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("{what} is refused here: {why}")]
pub(super) struct NotHeld {
    what: &'static str,
    why: String,
}

fn not_held<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> NotHeld {
    move |why| NotHeld { what, why: why.to_string() }
}

/// At the very start: ends with the parent, is the first to go when memory is short, cannot be read by others, owns no
/// descriptor but the standard ones.
pub(super) fn at_the_start() -> Result<(), NotHeld> {
    let io_error =
        |what| move |why: rustix::io::Errno| NotHeld { what, why: io::Error::from(why).to_string() };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io_error("ending with the parent"))?;
    // Where there is no /proc or no such file, the system chooses whom to end by itself.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(io_error("a limit of core files"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io_error("keeping memory to itself"))?;
    confonnx_device::ignore_terminal_signals();
    confonnx_device::close_all_from(3).map_err(not_held("closing descriptors"))
}

/// Before ONNX Runtime is loaded, which would open a database of its own and tell others of its use: no new privileges,
/// limits, no network, and files only to be read, where libraries, locales and the processors are. Says whether Landlock
/// holds, which older kernels do not have: there files that anyone may read can be read until requests are seen.
pub(super) fn before_the_library(memory: u64) -> Result<bool, NotHeld> {
    rustix::thread::set_no_new_privs(true).map_err(not_held("giving up new privileges"))?;
    let limit = |resource, value| {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).map_err(not_held("a limit of resources"))
    };
    if memory > 0 {
        limit(Resource::Data, memory)?;
    }
    limit(Resource::Fsize, LARGEST_FILE)?;
    let landlocked = landlock().map_err(not_held("Landlock"))?;
    apply(&[LINKING, LOADING, RUNNING], true)?;
    Ok(landlocked)
}

/// Before any byte of the model is seen: memory that can be executed, too.
pub(super) fn before_the_model() -> Result<(), NotHeld> {
    apply(&[LOADING, RUNNING], true)
}

/// Before any request is seen: no files at all, and no more descriptors than there are.
pub(super) fn before_requests() -> Result<(), NotHeld> {
    apply(&[RUNNING], false)
}

fn landlock() -> Result<bool, landlock::RulesetError> {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(READABLE, AccessFs::ReadFile | AccessFs::ReadDir))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// What the loader, the C library and ONNX Runtime read until sessions are made. Paths that are not there are left out.
const READABLE: [&str; 7] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/locale",
    "/etc/ld.so.cache",
    "/sys/devices/system/cpu",
];

/// From now on the process has the calls in `lists`, those with a condition, and no other: they fail with EPERM.
fn apply(lists: &[&[i64]], reading: bool) -> Result<(), NotHeld> {
    let failed = |why: seccompiler::Error| NotHeld { what: "seccomp", why: why.to_string() };
    let backend = |why: seccompiler::BackendError| NotHeld { what: "seccomp", why: why.to_string() };
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(backend)?;
    let mut rules: BTreeMap<i64, Vec<Rule>> = BTreeMap::new();
    for call in lists.iter().flat_map(|list| list.iter()) {
        rules.insert(*call, Vec::new());
    }
    for (call, conditions) in conditional(reading).map_err(backend)? {
        if rules.get(&call).is_some_and(Vec::is_empty) {
            // The call is in a list, without conditions.
            continue;
        }
        rules.entry(call).or_default().push(Rule::new(conditions).map_err(backend)?);
    }
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, arch).map_err(backend)?;
    let program: seccompiler::BpfProgram = filter.try_into().map_err(backend)?;
    apply_filter_all_threads(&program).map_err(failed)?;
    // The C library makes threads by the older call when it thinks that there is no other: its flags can be looked at.
    let unknown = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let newer = [(libc::SYS_clone3, Vec::new())].into();
    let filter = SeccompFilter::new(newer, SeccompAction::Allow, unknown, arch).map_err(backend)?;
    let program: seccompiler::BpfProgram = filter.try_into().map_err(backend)?;
    apply_filter_all_threads(&program).map_err(failed)
}

/// Calls that are allowed with some arguments: files to be read, if `reading`; memory that is not to be executed, threads of this process, names, and
/// asking for limits.
fn conditional(reading: bool) -> Result<Vec<(i64, Vec<Condition>)>, seccompiler::BackendError> {
    let word = |index, op, value| Condition::new(index, Len::Dword, op, value);
    let executable = Op::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs()));
    let thread = u64::from((libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND).unsigned_abs());
    let writing = u64::from((libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC).unsigned_abs());
    let read =
        if reading { vec![(libc::SYS_openat, vec![word(2, Op::MaskedEq(writing), 0)?])] } else { Vec::new() };
    let mut rules = vec![
        (libc::SYS_mmap, vec![word(2, executable.clone(), 0)?]),
        (libc::SYS_mprotect, vec![word(2, executable, 0)?]),
        (libc::SYS_clone, vec![word(0, Op::MaskedEq(thread), thread)?]),
        (libc::SYS_prctl, vec![word(0, Op::Eq, u64::from(libc::PR_SET_NAME.unsigned_abs()))?]),
        // These two calls are needed to give up more later.
        (libc::SYS_prctl, vec![word(0, Op::Eq, u64::from(libc::PR_SET_NO_NEW_PRIVS.unsigned_abs()))?]),
        (libc::SYS_prlimit64, vec![Condition::new(2, Len::Qword, Op::Eq, 0)?]),
        // A thread may set the cores of itself alone.
        (libc::SYS_sched_setaffinity, vec![word(0, Op::Eq, 0)?]),
    ];
    rules.extend(read);
    Ok(rules)
}

/// The largest memory file: what a request and its answer take together.
pub(super) const LARGEST_FILE: u64 = 16 << 30;

/// What ONNX Runtime, its threads and we call while models run. None of them opens anything.
const RUNNING: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_pread64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
];

/// What loading a library takes besides: memory that can be executed.
const LINKING: &[i64] = &[libc::SYS_mmap, libc::SYS_mprotect];

/// What making sessions takes besides: reading, where Landlock lets it.
const LOADING: &[i64] = &[
    libc::SYS_faccessat,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_sched_setaffinity,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];
