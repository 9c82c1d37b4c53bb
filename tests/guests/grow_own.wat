;; Is refused by its own maximum, not by a limit, then aborts.
(module
  (memory (export "memory") 1 2)
  (func (export "_start") (drop (memory.grow (i32.const 9))) unreachable))
