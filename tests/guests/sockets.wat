;; Exits with 1 when any descriptor from 0 to 63 accepts a connection or takes data as a socket.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_send"
    (func $send (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $fd i32)
    (loop $next
      (if (i32.or
            (i32.eqz (call $accept (local.get $fd) (i32.const 0) (i32.const 64)))
            (i32.eqz (call $send (local.get $fd) (i32.const 0) (i32.const 0) (i32.const 0)
              (i32.const 64))))
        (then (call $exit (i32.const 1))))
      (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $fd) (i32.const 64))))))
