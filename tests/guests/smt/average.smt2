; The average without overflow: (x & y) + ((x ^ y) >> 1) is (x + y) >> 1 in one bit more.
(set-logic QF_BV)
(declare-const x (_ BitVec 32))
(declare-const y (_ BitVec 32))
(define-fun wide () (_ BitVec 33)
  (bvlshr (bvadd ((_ zero_extend 1) x) ((_ zero_extend 1) y)) (_ bv1 33)))
(define-fun narrow () (_ BitVec 32) (bvadd (bvand x y) (bvlshr (bvxor x y) (_ bv1 32))))
(assert (not (= ((_ extract 31 0) wide) narrow)))
(check-sat)
