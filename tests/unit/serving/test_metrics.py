from blt.serving.metrics import Metrics, text_of


def test_figures_of_several_processes_stand_under_one_head_each_with_its_label():
    one, two = Metrics(), Metrics()
    one.new_bytes.add(3)
    two.requests.add(path="/", status="200")
    two.step_seconds.observe(0.002)
    text = text_of([*one.families(replica="a"), *two.families(replica="b")])
    assert text.count("# TYPE blt_new_bytes_total counter\n") == 1
    assert 'blt_new_bytes_total{replica="a"} 3\nblt_new_bytes_total{replica="b"} 0\n' in text
    assert 'blt_requests_total{replica="b",path="/",status="200"} 1\n' in text
    assert 'blt_step_seconds_bucket{replica="b",le="0.0025"} 1\n' in text
    assert 'blt_step_seconds_count{replica="b"} 1\n' in text


def test_figures_of_one_process_have_no_label():
    metrics = Metrics()
    metrics.rows.set(2)
    assert "\nblt_rows_running 2\n" in metrics.text()
    assert metrics.text() == text_of(metrics.families())
