;; WASI preview 1 for languages whose programs cannot do without it, in the plugin itself: a
;; call of one of these functions reaches nothing outside of the plugin's own memory. So the
;; host needs no WASI, and such a call is allowed at any moment, also while the host passes
;; values to the plugin. Every answer is a constant, or depends on the calls before it.
;;
;; There are no files, arguments, environment variables and sockets. Waiting takes no time.
;; `preview1.rs` links it into core modules, and describes its import.
(module
  (import "env" "memory" (memory 0))
  ;; A line of output goes to the plugin's log.
  (import "lantern:projection/logging@0.2.0" "log"
    (func $log (param $cause i32) (param $level i32) (param $at i32) (param $length i32)))

  ;; Nanoseconds on the monotonic clock: one more at each look, because Go takes a clock at 0
  ;; for a broken one, and a loop that waits for time to pass must end.
  (global $now (mut i64) (i64.const 0))
  ;; The tool that links this module sets a global of this name to the end of a page of memory
  ;; of its own. The page holds output that is not yet in the log.
  (global $__stack_pointer (mut i32) (i32.const 0))
  ;; How much output is there.
  (global $held (mut i32) (i32.const 0))
  ;; Whether it began with words of a panic. Then nothing of it is forgotten.
  (global $dying (mut i32) (i32.const 0))
  ;; Where the line in progress begins in it.
  (global $line (mut i32) (i32.const 0))
  ;; How often a panic was sent to the log.
  (global $sent (mut i32) (i32.const 0))

  (func $page (result i32) (i32.sub (global.get $__stack_pointer) (i32.const 65536)))

  ;; ---- Clocks, randomness and waiting ---------------------------------------------------

  (func $read_clock (result i64)
    (global.set $now (i64.add (global.get $now) (i64.const 1)))
    (global.get $now))

  ;; All clocks but the monotonic one are at 1970-01-01T00:00:00Z.
  (func (export "clock_time_get") (param $id i32) (param $precision i64) (param $to i32) (result i32)
    (if (i32.eq (local.get $id) (i32.const 1))
      (then (i64.store (local.get $to) (call $read_clock)))
      (else (i64.store (local.get $to) (i64.const 0))))
    (i32.const 0))

  (func (export "clock_res_get") (param $id i32) (param $to i32) (result i32)
    (i64.store (local.get $to) (i64.const 1))
    (i32.const 0))

  ;; The same bytes at each call: a linear congruential generator with a fixed seed.
  (func (export "random_get") (param $to i32) (param $length i32) (result i32)
    (local $state i64) (local $end i32)
    (local.set $state (i64.const 0x6C616E7465726E21))
    (local.set $end (i32.add (local.get $to) (local.get $length)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $to) (local.get $end)))
        (local.set $state (i64.add
          (i64.mul (local.get $state) (i64.const 6364136223846793005))
          (i64.const 1442695040888963407)))
        (i64.store8 (local.get $to) (i64.shr_u (local.get $state) (i64.const 56)))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  (func (export "sched_yield") (result i32) (i32.const 0))

  ;; Each wait is over at once. A wait for a clock sets the monotonic clock to its end; a wait
  ;; for a file ends with an error. A subscription has 48 bytes, an event 32.
  (func (export "poll_oneoff") (param $from i32) (param $to i32) (param $count i32) (param $written i32) (result i32)
    (local $left i32) (local $until i64)
    (local.set $left (local.get $count))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $left)))
        (i64.store (local.get $to) (i64.load (local.get $from)))
        (i64.store offset=8 (local.get $to) (i64.const 0))
        (i64.store offset=16 (local.get $to) (i64.const 0))
        (i64.store offset=24 (local.get $to) (i64.const 0))
        (i32.store8 offset=10 (local.get $to) (i32.load8_u offset=8 (local.get $from)))
        (if (i32.eqz (i32.load8_u offset=8 (local.get $from)))
          (then
            (local.set $until (i64.load offset=24 (local.get $from)))
            ;; Without this flag the time counts from now.
            (if (i32.eqz (i32.and (i32.load8_u offset=40 (local.get $from)) (i32.const 1)))
              (then (local.set $until (i64.add (global.get $now) (local.get $until)))))
            (if (i64.gt_u (local.get $until) (global.get $now))
              (then (global.set $now (local.get $until)))))
          (else (i32.store16 offset=8 (local.get $to) (i32.const 8))))
        (local.set $from (i32.add (local.get $from) (i32.const 48)))
        (local.set $to (i32.add (local.get $to) (i32.const 32)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $written) (local.get $count))
    (i32.const 0))

  ;; ---- Arguments and environment variables: none ------------------------------------------

  (func $none (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (export "args_sizes_get" (func $none))
  (export "environ_sizes_get" (func $none))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_get") (param i32 i32) (result i32) (i32.const 0))

  ;; ---- Output --------------------------------------------------------------------------------

  ;; Sends what is held to the log, as an entry of the call's first event.
  (func $send (param $level i32)
    ;; The tool that links this module drops an import that no instruction uses. If a program
    ;; calls `proc_exit` alone, this read is the only instruction that uses the memory.
    (drop (i32.load8_u (call $page)))
    (if (global.get $held)
      (then (call $log (i32.const 0) (local.get $level) (call $page) (global.get $held)))))

  ;; Holds as much of the bytes as there is room for.
  (func $hold (param $at i32) (param $length i32)
    (local $room i32)
    (local.set $room (i32.sub (i32.const 65536) (global.get $held)))
    (if (i32.gt_u (local.get $length) (local.get $room))
      (then (local.set $length (local.get $room))))
    (memory.copy (i32.add (call $page) (global.get $held)) (local.get $at) (local.get $length))
    (global.set $held (i32.add (global.get $held) (local.get $length))))

  ;; Whether what is held ends with a line.
  (func $is_line (result i32)
    (if (result i32) (global.get $held)
      (then (i32.eq
        (i32.load8_u (i32.sub (i32.add (call $page) (global.get $held)) (i32.const 1)))
        (i32.const 10)))
      (else (i32.const 0))))

  (func (export "fd_write") (param $fd i32) (param $parts i32) (param $count i32) (param $written i32) (result i32)
    (local $sum i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (call $hold (i32.load (local.get $parts)) (i32.load offset=4 (local.get $parts)))
        (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $parts))))
        (local.set $parts (i32.add (local.get $parts) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $written) (local.get $sum))
    (if (call $is_line) (then (call $end_line)))
    (i32.const 0))

  ;; A line is complete. One of a panic stays where it is: the program may end without a call of
  ;; `proc_exit`, so the panic is sent with its first line, and again with the first places on
  ;; its stack, which begin with a tab. The last message of a plugin explains how it ended.
  (func $end_line
    ;; `pani` and `fata`, as the messages of Go's runtime begin.
    (if (i32.ge_u (global.get $held) (i32.const 4))
      (then (global.set $dying (i32.or (global.get $dying) (i32.or
        (i32.eq (i32.load (call $page)) (i32.const 0x696E6170))
        (i32.eq (i32.load (call $page)) (i32.const 0x61746166)))))))
    (if (global.get $dying)
      (then
        (if (i32.and
              (i32.lt_u (global.get $sent) (i32.const 5))
              (i32.or
                (i32.eqz (global.get $line))
                (i32.eq (i32.load8_u (i32.add (call $page) (global.get $line))) (i32.const 9))))
          (then
            (global.set $sent (i32.add (global.get $sent) (i32.const 1)))
            (call $send (i32.const 4))))
        (global.set $line (global.get $held)))
      (else
        (call $send (i32.const 2))
        (global.set $held (i32.const 0)))))

  (func (export "proc_exit") (param $code i32)
    (if (i32.eqz (global.get $sent)) (then (call $send (i32.const 4))))
    (unreachable))

  ;; ---- What does not exist: each call returns `badf` --------------------------------------------

  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_close") (param i32) (result i32) (i32.const 8))
  (func (export "fd_datasync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_renumber") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_sync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_tell") (param i32 i32) (result i32) (i32.const 8))
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "proc_raise") (param i32) (result i32) (i32.const 8))
  (func (export "sock_accept") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (i32.const 8))
)
