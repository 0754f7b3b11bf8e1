local select_pool = avi.pool.select
select_pool("nowhere")
